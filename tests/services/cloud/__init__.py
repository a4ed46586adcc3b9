"""SageMaker, S3, IAM, STS and CloudWatch Logs on this machine, over HTTP.

moto answers all requests except those about training jobs. Jobs are executed here, from the request
alone and in a clean environment. This simulation follows SageMaker's documentation; it was never
compared with AWS. See `Cloud` for the interface that tests use.
"""

from cloud.faults import Fault
from cloud.service import Cloud
from cloud.training_jobs import TrainingJob

__all__ = ["Cloud", "Fault", "TrainingJob"]
