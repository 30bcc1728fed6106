"""RTP and RTCP: packets, sequence numbers, feedback, redundancy and what a flood may cost."""
