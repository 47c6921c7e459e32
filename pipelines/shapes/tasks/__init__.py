"""*Shapes* in the formats of the downstream benchmarks, for tests of every task.

OUT/tasks/videos/video<N>.mp4                one clip each, first train's clips, then test's
OUT/tasks/{msrvtt,msvd}/                     several sentences per clip
OUT/tasks/{msrvtt_qa,msvd_qa}/               questions about each clip
OUT/tasks/actions/<Class>/v_<Class>_g<group>_c<clip>.mp4
OUT/tasks/{ucf101,hmdb51}/                   classes of the actions, in three splits
OUT/tasks/untrimmed/v_<video id>.mp4
OUT/tasks/activitynet/                       motions with their start and end
OUT/tasks/activitynet_captions/              sentences about the motions, for moment retrieval
OUT/tasks/ava/                               box and motion of each object of OUT/{train,test}, in
                                             the middle of each clip
"""
