"""Independent references: every model's mathematics a second time, as its paper prints it.

Each family has two files. `vae.py` is the paper: sums, products and loops over pixels, pairs and cells with the numbers
of the paper's equations, written from the paper before the model's file was read. It imports torch alone and shares no
line with `lightning_gen`. `test_vae.py` takes the parameters of a model by their names, puts them into the reference,
and compares at odd sizes (5 x 7 pixels, batches of 3): in float64 to rounding, in bfloat16 within its precision.
"""
