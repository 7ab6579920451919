"""Arrays on disk and in clouds: the only room that opens, reads, writes or describes them.

::

    volume.py      what a volume is (one frozen value), and what everything that can be read in boxes offers
    formats.py     THE table of formats; one file each: hdf5.py, tiff.py, zarr.py, n5.py, npy.py, precomputed.py
    files.py       open lazily, read whole, write whole, by the table
    stored.py      an opened array, read box by box; an image with its grey values checked
    views.py       changes made as a volume is read: padding, masks, contrast
    sink.py        HDF5 outputs, written box by box
    ngff.py        what an OME-NGFF image says about its levels
    precomputed.py, cloud_mask.py, chunks.py, pyramid.py, cloud_sink.py, addresses.py   volumes behind cloud-volume
    faults.py      what is said when a file cannot be read or written

It knows nothing of the command line: errors name a file, a box, or a parameter, never a flag.
"""
