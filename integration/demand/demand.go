// Package demand ends a play where something is not as it is to be. The steps of a
// play stand one below the other, and each of them demands what has to be so.
package demand

import "fmt"

// failure is what ends a play.
type failure struct{ error }

// OK demands that there is no error.
func OK(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// Of is a value that has to come without an error.
func Of[T any](v T, err error) T {
	OK(err)
	return v
}

// Fail ends the play.
func Fail(format string, args ...any) { OK(fmt.Errorf(format, args...)) }

// Try plays f, and returns what ended it before its own end; nil: nothing did. It is
// for the goroutine that f demands in.
func Try(f func()) (err error) {
	defer func() {
		p := recover()
		if failed, ok := p.(failure); ok {
			err = failed.error
		} else if p != nil {
			panic(p)
		}
	}()
	f()
	return nil
}

// In plays f, and says of what ends it where that was.
func In(place string, f func()) {
	if err := Try(f); err != nil {
		Fail("%s: %w", place, err)
	}
}
