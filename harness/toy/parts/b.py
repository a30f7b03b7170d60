"""Part b of the toy: two numbers, measured together with the other parts."""

width = 20.0
depth = 3.0
