"""Independent references: every model's mathematics a second time, as its paper prints it.

Each family has two files. `vae.py` is the paper: sums, products and loops over pixels, pairs and cells, with the
numbers of its equations. It was written from the paper; what the paper leaves open, such as the order of a kernel's
taps or a pyramid's sides that do not halve, is as the package documents it. It imports torch and other references
alone, and shares no line with `lightning_gen`. `test_vae.py` takes the parameters of a model by their names, puts them
into the reference, and compares at odd sizes (5 x 7 pixels, batches of 3): in float64 to rounding, and likelihoods in
bfloat16 within its precision. Where networks are large and the game is the point, they are the package's own, and the
first line of the test says so.
"""
