"""Run stages as jobs in SageMaker."""
