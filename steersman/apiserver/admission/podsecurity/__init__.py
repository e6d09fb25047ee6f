"""PodSecurity: what a pod may ask for, by its namespace's labels. `checks` are the standards, `plugin` the modes."""
