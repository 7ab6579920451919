"""Plug-ins: each file names volumes (`data_info`) and loads them (`load_data`), mostly by a table and one call."""
