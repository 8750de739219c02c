from lkdn_basicsr.training.run import Run, test_pipeline, train_pipeline

__all__ = ['Run', 'test_pipeline', 'train_pipeline']
