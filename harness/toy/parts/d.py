"""Part d of the toy: two numbers, measured together with the other parts."""

gain = 1.5
offset = 0.05
