"""From a source to windows: what a URI opens (sources), the capture thread (camera), the release clock (clock)."""
