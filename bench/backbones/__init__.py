"""Other base models and real tasks, to see what holds beyond one model of 135M and made-up rows.

    python -m bench.backbones get NAME FOLDER     catalogue.py → assembly.py → tools/model/gguf.py → checks.py
    python -m bench.backbones check MODEL         whether a model folder answers and computes as it should
    python -m bench.backbones tasks DATA OUT      real_tasks.py: task folders over data that you have
    python -m bench.backbones run MODEL … --tasks TASK …   study.py, page.py: backbones × tasks × cells.py

No weights and no data of others come with the project.
"""
