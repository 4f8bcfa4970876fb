"""Who may reach the ports of a run: whoever listens (``Listener``), whoever connects (``Dialer``).

Both read ``algorithm.security``; what holds against whom is said in docs/security.md.
"""
