"""The repair as a step of other programs; each module needs the program that it is for."""
