"""The room that writes: facts, questions, rephrasings and clozes from chunks, each with the words it rests on."""
