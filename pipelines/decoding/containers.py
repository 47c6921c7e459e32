"""The allowed containers, by FFmpeg's demuxer names, and the error message for all others."""

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,flv,asf"
OTHER_CONTAINER = (
    "its container is not MP4, MOV, Matroska, WebM, AVI, MPEG, MPEG-TS, Ogg, FLV or ASF: "
    "convert it, for example: ffmpeg -i FILE -c copy FILE.mkv"
)
NOT_LISTED = "Format not on whitelist"  # FFmpeg's message for a container that is not allowed
