"""What a gRPC debugging proxy before this one got wrong, each reproduced there: promises here, and numbered.

A test's number is the defect's. Where lanes differ, each is tested: rules that match and change nothing take a
connection into the intercept lane.
"""
