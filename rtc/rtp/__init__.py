"""RTP and RTCP: packets, sequence numbers, feedback, redundancy and bounds on a flood."""
