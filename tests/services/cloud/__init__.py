"""SageMaker, S3, IAM, STS and CloudWatch Logs on this machine, over HTTP.

moto answers all but training jobs, which are executed here: from the request alone, in a clean
environment. Of the real service this is a model, made from its documentation: nothing of it was
compared with AWS. See `Cloud` for what a test does with it.
"""

from cloud.faults import Fault
from cloud.service import Cloud
from cloud.training_jobs import TrainingJob

__all__ = ["Cloud", "Fault", "TrainingJob"]
