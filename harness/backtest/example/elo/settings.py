"""What the ratings depend on, in points of rating where nothing else is said."""

# How far one match moves a rating, at most.
STEP = 4.0

# What it is worth to play at home.
HOME = 0.0

# A difference of so many points makes a win e times as likely as a defeat.
SCALE = 174.0

# How often there is no winner: 0 is never.
DRAW = 0.5

# What is left in a new season of a distance from the mean.
LEFT = 1.0
