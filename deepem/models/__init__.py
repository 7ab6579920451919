"""Networks. Each file here is a plug-in with `create_model`; the packages beside them hold the networks' parts."""
