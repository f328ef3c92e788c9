"""`make demo`: a whole pipeline under load on one machine, counted at the receiving end.

It is `tocsin dev` with its own resource, its own receiver and a load with a hill in it; nothing else is special, or it
would show something that users do not get.
"""
