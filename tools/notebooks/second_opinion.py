# %% [markdown] id=title
# # A second opinion
#
# The same questions to any model behind a *route*. The notebook knows the route's name only: which
# provider and which model answer is written in `registry/models.yaml`. Point the route somewhere else
# (any OpenAI-compatible endpoint), run the notebook again, and compare the two runs. No cell changes.

# %% id=setup
# %load_ext toolkit
from typing import Literal

import pandas as pd
from pydantic import BaseModel

import toolkit

# %% id=parameters tags=parameters
limit: int = 6  # how many questions to ask at most

# %% [markdown] id=about-questions
# ## The questions
#
# Small facts with one right answer, so that routes can be compared without a judge.

# %% id=questions
QUESTIONS = [
    ("Is 97 a prime number?", "yes"),
    ("Is Python's list immutable?", "no"),
    ("Does HTTP status 404 mean that the resource was not found?", "yes"),
    ("Is the Pacific smaller than the Atlantic?", "no"),
    ("Does the MIT licence require derived works to be published?", "no"),
    ("Is JSON a text format?", "yes"),
]


class Opinion(BaseModel):
    answer: Literal["yes", "no"]


# %% [markdown] id=about-first
# ## One question with the magic
#
# `%%model ROUTE --out VARIABLE --schema CLASS` sends the cell as the prompt; `{names}` in it are
# filled from the notebook.

# %% id=first
question, expected = QUESTIONS[0]

# %% id=ask-first
# %%model default --out first --schema Opinion
Answer with yes or no. {question}

# %% id=first-answer
first

# %% [markdown] id=about-all
# ## All of them

# %% id=ask-all
@toolkit.agent
def give_opinion(question: str) -> str:
    """Answer one question with yes or no."""
    reply = toolkit.model(
        f"Answer with yes or no. {question}", route="default", schema=Opinion, max_tokens=20
    )
    return reply.data.answer


answers = [(text, right, give_opinion(text)) for text, right in QUESTIONS[: max(limit, 0)]]

# %% id=table
table = pd.DataFrame(answers, columns=["question", "expected", "answer"])
table["right"] = table["expected"] == table["answer"]
table

# %% id=results
toolkit.result(table=table, asked=len(table), right=int(table["right"].astype(bool).sum()))
