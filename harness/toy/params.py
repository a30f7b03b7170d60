"""The editable part of the toy: eight numbers and a switch. `measure.py` knows what is best."""

rate = 0.01
decay = 0.5
width = 20.0
depth = 3.0
reach = 0.2
scale = 4.0
gain = 1.5
offset = 0.05
warm = False
