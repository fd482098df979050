"""What runs on several machines remember together: prompts on a Chroma server, replies and rounds in Postgres.

origin.py          which folder of runs an entry is from: names of runs are only known to differ within one
chroma_server.py   the prompts, behind the interface of memory/chroma.py
chroma_client.py   how a Chroma server is asked: no wait without end
postgres.py        answers of the LLM, and what rounds brought
waiting.py         says what is waited for
connection.py      how Postgres is connected to, here and for checkpoints: no wait without end, no password shown
"""
