"""The course's colours: of the pictures, and of the cards, which need no matplotlib.

Told apart with every common colour blindness, but for ORANGE and VERMILLION: where both are drawn,
one is a dashed line with its name and the other diamonds.
Source: Okabe and Ito 2008, darker for text on white.
"""

INK, MUTED, FAINT, HAIR = "#1f2937", "#5b6472", "#d3d9e0", "#e9ecf0"
GREY, PALE = "#6f7986", "#c3cbd4"
BLUE, LIGHT, VERMILLION, GREEN, ORANGE = "#0072B2", "#3D8FC9", "#C84E00", "#00805C", "#A86A00"
TINT = "#dcebf6"  # of blue: where an interval is wanted to lie
