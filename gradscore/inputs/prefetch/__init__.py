"""Inputs read ahead of whoever scores them, in threads and in processes of their own."""
