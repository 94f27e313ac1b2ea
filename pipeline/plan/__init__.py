"""`heatlas plan`: what a run would do, take and leave, found out on a few of its images before it is begun."""
