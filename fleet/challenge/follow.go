package challenge

import (
	"context"
	"fmt"

	"waxseal/measure/wire"
)

// Follow calls each for what is open at the router, then for every finding as it
// is found, until ctx is done, the router ends it, or each fails. It never
// returns nil. What is told is a claim until a challenge covers its record.
func Follow(ctx context.Context, c Config, each func(wire.Told) error) error {
	c, err := c.withDefaults()
	if err != nil {
		return fmt.Errorf("follow %s: %w", c.Address, err)
	}
	conn, refused, err := c.dial()
	if err != nil {
		return fmt.Errorf("follow %s: %w", c.Address, err)
	}
	defer conn.Close()
	err = conn.Findings().Follow(ctx, each)
	if cause := refused(); cause != nil {
		err = fmt.Errorf("%w: %w", wire.ErrDenied, cause)
	}
	return fmt.Errorf("follow %s: %w", c.Address, err)
}
