//! Where everyone is seen: from a layout and the people in their order to areas of the canvas.
