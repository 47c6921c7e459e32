"""*Shapes* in the forms of the downstream benchmarks, to try every task on.

OUT/tasks/videos/video<N>.mp4                one clip each: first those of train, then of test
OUT/tasks/{msrvtt,msvd}/                     several sentences a clip
OUT/tasks/{msrvtt_qa,msvd_qa}/               questions about a clip
OUT/tasks/actions/<Class>/v_<Class>_g<group>_c<clip>.mp4
OUT/tasks/{ucf101,hmdb51}/                   their classes, in three splits
OUT/tasks/untrimmed/v_<video id>.mp4
OUT/tasks/activitynet/                       which motion is seen from when to when
OUT/tasks/ava/                               where each object of OUT/{train,test} is, and what
                                             it does, in the middle of each clip
"""
