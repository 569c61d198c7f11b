"""The Python client, cell by cell: VS Code, PyCharm and Jupytext run this file as a notebook.

serve run serve.app:build run=lorid-demo/store#demo     # an endpoint, in another terminal
python docs/examples/client.py

`LORID_URL` names another endpoint, `LORID_API_KEY` is its token. A test runs every cell.
"""

# %% [markdown]
# # Asking an endpoint
# One client for all; it may be used from many threads. Answers are dictionaries, as
# docs/http-api.md describes them.

# %%
import os
from collections import Counter

from lorid.batches import grade_all
from lorid.client import Client
from lorid.errors import EndpointBusy, ServeError

URL = os.environ.get("LORID_URL", "http://127.0.0.1:8000")
TOKEN = os.environ.get("LORID_API_KEY")
QUESTION = "Mia has 24 red cards and 36 blue cards. How many cards does Mia have?"

client = Client(URL, TOKEN)
client.wait_until_ready(timeout_s=300)  # the engine loads with the first probe

# %% [markdown]
# ## One question
# The answer, how it came about, and what it took. With a seed the same question gets the same
# texts again.

# %%
answer = client.solve(QUESTION, max_rounds=5, seed=1)
print(answer["answer"], answer["outcome"], f"after {answer['num_rounds']} rounds")
print(f"confidence {answer['confidence']:.2f}, {answer['usage']['num_generations']} texts")

# %%
for number, one in enumerate(answer["rounds"], start=1):
    deep = one["deep"]["answer"] if one["deep"] else None
    print(f"round {number}: intuitive {one['intuitive']['answer']}, deep {deep}")
    print(f"  knowledge: {one['knowledge']}")

# %% [markdown]
# ## While it happens
# `attempt` for each text, `round` for each round as it is judged, and `answer` at the end.

# %%
for name, event in client.solve_stream(QUESTION, max_rounds=5, seed=1):
    if name == "attempt":
        print(f"round {event['round']}, {event['role']}: answer {event['answer']}")
    elif name == "answer":
        print("agreed on" if event["outcome"] == "agreed" else "fell back on", event["answer"])

# %% [markdown]
# ## Another rule, for this question alone
# docs/method.md says when each of them stops.

# %%
for rule in ("paper", "same-round", "majority", "intuitive-only"):
    judged = client.solve(QUESTION, rule=rule, max_rounds=3, seed=1)
    print(f"{rule:<15} {judged['answer']:<5} {judged['usage']['num_generations']} texts")

# %% [markdown]
# ## Grading
# With a reference: solve and compare. With a submission too: compare the two, without a model.
# With a submission alone: solve, and compare it with what the rounds agree on. A submission is an
# answer; `lorid.method.answers.extract_answer` reads one from a solution.

# %%
items = [
    {"id": "solve", "question": QUESTION, "reference": "60"},
    {"id": "compare", "question": QUESTION, "reference": "60", "submission": "60 cards"},
    {"id": "check", "question": QUESTION, "submission": "12"},
]
graded = client.grade(items, max_rounds=5, seed=1)
for row in graded["results"]:
    print(f"{row['id']:<8} {row['verdict']:<10} {row['reason']}")
print(graded["summary"])

# %% [markdown]
# ## Grading any number of items
# `grade_all` sends as many requests as it takes, waits out refusals and restarts, and gives every
# row once, as it finishes.

# %%
many = ({"id": str(number), "question": QUESTION, "reference": "60"} for number in range(20))
verdicts = Counter(row["verdict"] for row in grade_all(client, many, seed=1, items_per_request=8))
print(dict(verdicts))

# %% [markdown]
# ## One role alone
# The OpenAI-compatible route; `openai.OpenAI(base_url=f"{URL}/v1")` asks the same models.

# %%
for model in ("lorid:intuitive_reasoner", "lorid:knowledge_generator", "lorid:base"):
    text, finish_reason = client.complete(QUESTION, model=model, seed=1)
    print(f"{model} ({finish_reason}): {text.splitlines()[0]}")

# %% [markdown]
# ## When it does not work
# `EndpointBusy`: ask again later, `retry_after_s` says when. Any other `ServeError`: the request
# itself is at fault, and the message says how.

# %%
try:
    client.solve("")
except EndpointBusy as error:
    print(f"busy, again in {error.retry_after_s or 1:.0f} s: {error}")
except ServeError as error:
    print(f"refused: {error}")

# %%
client.close()
