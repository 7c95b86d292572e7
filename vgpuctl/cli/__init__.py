"""The command line: click, and the API's client.  Each module is one noun or one way of printing."""
