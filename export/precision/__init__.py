"""One traced graph -> fp16 or int8, typed throughout."""
