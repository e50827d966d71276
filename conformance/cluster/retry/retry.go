// Package retry waits for what comes to hold at a time that nobody knows.
package retry

import (
	"context"
	"fmt"
	"time"
)

// pause lies between two attempts.
const pause = 100 * time.Millisecond

// Until repeats attempt until it succeeds or patience ends; the error is then that of the last attempt.
func Until(ctx context.Context, patience time.Duration, attempt func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", patience, err)
		case <-time.After(pause):
		}
	}
}
