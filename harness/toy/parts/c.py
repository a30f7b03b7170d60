"""Part c of the toy: two numbers, measured together with the other parts."""

reach = 0.2
scale = 4.0
