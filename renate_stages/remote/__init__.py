"""Stages in SageMaker."""
