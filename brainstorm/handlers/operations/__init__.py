"""The operations of handlers, by topic: documentation, contract and composition.

An operation is *primitive* if every handler implements it; the others are composed of
primitive ones here, and a handler that can do better overrides them. The decorator of
an operation (see :func:`~brainstorm.handlers.operations.contract.operation`) tells what
it reads, writes and adds to, in which shapes.

Conventions, unless an operation says otherwise:

- Every array is of the handler's `array_type` and `dtype`. Operations do not
  check that; wrap the handler in a :class:`~brainstorm.handlers.DebugHandler` to
  have everything checked.
- Suffixes name the operands: ``s`` scalar, ``v`` vector (a 2D array with at
  least one dimension equal to 1), ``m`` matrix (2D), ``t`` tensor (any shape).
- Arrays may be strided views; their last axis has unit stride.
- The output of an *elementwise* operation may be the very same array as one of
  the inputs of its shape (same memory, same strides). Arrays that overlap in
  part are never allowed.
- Operations return None and write into arrays that the caller provides.
- Layers fold time and batch: M = T * B rows.
- Destinations of deltas and gradients are added to. With ``fresh_*=True`` they are
  overwritten instead: what they held does not matter.
- Backward passes are given what the forward passes were given and filled. ``dx`` are
  the deltas, or gradients, of ``x``; where they may be None they are not wanted.
- ``activation`` is the name of an activation function, ``epsilon`` a positive number
  that keeps divisors off zero, ``decay`` how much of a running value to keep.
"""
