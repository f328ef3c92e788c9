"""One module per channel type; each turns a notification and a profile into one send and names its outcome."""
