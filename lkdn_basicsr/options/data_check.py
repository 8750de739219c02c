def check_data(source, world_size=1):
    pass
