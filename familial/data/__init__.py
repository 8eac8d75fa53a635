"""What the family learns from: rendered clips, manifests of recorded ones, and the batches made of both."""
