"""A search by itself: of any supernet, with any score, without a run or a folder."""
