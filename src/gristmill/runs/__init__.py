"""The hall: recipe, plan, execution, run folders. It alone knows the order of the rooms."""
