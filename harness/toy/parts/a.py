"""Part a of the toy: two numbers and a switch, measured together with the other parts."""

rate = 0.01
decay = 0.5
warm = False
