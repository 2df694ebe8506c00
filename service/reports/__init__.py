"""What a study says, in words, tables and charts: shared by the dashboard, the HTML report and MLflow's artifacts."""
