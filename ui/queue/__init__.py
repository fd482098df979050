"""A queue of tasks from the command line: started, added to, followed, taken up again; and its page.

commands.py  parsing, which loads nothing heavy; work.py: what each command does; view.py: what is shown meanwhile
changes.py   what changes a queue, also while it is worked on
page.py      index.html in the queue's folder
"""
