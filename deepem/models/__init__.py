"""Networks. Each file here is a plug-in with `create_model`; the packages next to them hold the parts of networks."""
