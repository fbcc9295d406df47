package probe

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock tells the time of day of a time of the kernel's monotonic clock.
func clock() (func(uint64) time.Time, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return nil, err
	}
	now := time.Now()
	base := ts.Nano()
	return func(at uint64) time.Time {
		if at == 0 {
			return time.Time{}
		}
		return now.Add(time.Duration(int64(at) - base))
	}, nil
}
