"""What every stage of the signal slot shares: which rows it scores and the columns that it writes."""
