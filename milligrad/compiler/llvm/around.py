"""Loops around a program in LLVM's language: over blocks of rows, and over the batches of an epoch.

They move pointers of the table along and call `run`; `native.py` says what for.
"""

AROUND = """
define void @rows(ptr %table, i64 %count, i64 %capacity, ptr %moves, i64 %k) {
entry:
  br label %block
block:
  %done = phi i64 [ 0, %entry ], [ %next, %moved ]
  %left = sub i64 %count, %done
  %n = call i64 @llvm.umin.i64(i64 %left, i64 %capacity)
  call void @run(ptr %table, i64 %n)
  br label %move
move:
  %i = phi i64 [ 0, %block ], [ %i1, %one ]
  %more = icmp ult i64 %i, %k
  br i1 %more, label %one, label %moved
one:
  %m = getelementptr {i64, i64}, ptr %moves, i64 %i
  %slot = load i64, ptr %m
  %mb = getelementptr i64, ptr %m, i64 1
  %row = load i64, ptr %mb
  %bytes = mul i64 %row, %n
  %t = getelementptr ptr, ptr %table, i64 %slot
  %p = load ptr, ptr %t
  %q = getelementptr i8, ptr %p, i64 %bytes
  store ptr %q, ptr %t
  %i1 = add i64 %i, 1
  br label %move
moved:
  %next = add i64 %done, %n
  %again = icmp ult i64 %next, %count
  br i1 %again, label %block, label %end
end:
  ret void
}

define void @epoch(ptr %table, ptr %order, i64 %start, i64 %stop, i64 %batch, ptr %gathers, i64 %ng,
                   ptr %totals, i64 %nt, ptr %count, ptr %step, double %first) {
entry:
  br label %block
block:
  %at = phi i64 [ %start, %entry ], [ %next, %added ]
  %b = phi i64 [ 0, %entry ], [ %b1, %added ]
  %left = sub i64 %stop, %at
  %n = call i64 @llvm.umin.i64(i64 %left, i64 %batch)
  %nf = uitofp i64 %n to FLOAT
  store FLOAT %nf, ptr %count
  %bf = uitofp i64 %b to double
  %sf = fadd double %bf, %first
  STORE_STEP
  br label %arrays
arrays:
  %g = phi i64 [ 0, %block ], [ %g1, %gathered ]
  %moreg = icmp ult i64 %g, %ng
  br i1 %moreg, label %rows, label %call
rows:
  %gp = getelementptr {i64, ptr, ptr, i64}, ptr %gathers, i64 %g
  %slot = load i64, ptr %gp
  %gp1 = getelementptr i64, ptr %gp, i64 1
  %source = load ptr, ptr %gp1
  %gp2 = getelementptr i64, ptr %gp, i64 2
  %target = load ptr, ptr %gp2
  %gp3 = getelementptr i64, ptr %gp, i64 3
  %bytes = load i64, ptr %gp3
  %place = getelementptr ptr, ptr %table, i64 %slot
  %single = icmp eq i64 %n, 1
  br i1 %single, label %point, label %copies
point:                                          ; a batch of one row needs no copy of it
  %o0 = getelementptr i64, ptr %order, i64 %at
  %k0 = load i64, ptr %o0
  %f0 = mul i64 %k0, %bytes
  %s0 = getelementptr i8, ptr %source, i64 %f0
  store ptr %s0, ptr %place
  br label %gathered
copies:
  store ptr %target, ptr %place
  br label %row
row:
  %i = phi i64 [ 0, %copies ], [ %i1, %row ]
  %o = add i64 %at, %i
  %op = getelementptr i64, ptr %order, i64 %o
  %k = load i64, ptr %op
  %from = mul i64 %k, %bytes
  %s = getelementptr i8, ptr %source, i64 %from
  %to = mul i64 %i, %bytes
  %d = getelementptr i8, ptr %target, i64 %to
  call void @llvm.memcpy.p0.p0.i64(ptr align ALIGN %d, ptr align ALIGN %s, i64 %bytes, i1 false)
  %i1 = add i64 %i, 1
  %morei = icmp ult i64 %i1, %n
  br i1 %morei, label %row, label %gathered
gathered:
  %g1 = add i64 %g, 1
  br label %arrays
call:
  call void @run(ptr %table, i64 %n)
  br label %sums
sums:
  %t = phi i64 [ 0, %call ], [ %t1, %summed ]
  %moret = icmp ult i64 %t, %nt
  br i1 %moret, label %add, label %added
add:
  %tp = getelementptr {ptr, ptr, i64}, ptr %totals, i64 %t
  %from1 = load ptr, ptr %tp
  %tp1 = getelementptr i64, ptr %tp, i64 1
  %to1 = load ptr, ptr %tp1
  %tp2 = getelementptr i64, ptr %tp, i64 2
  %numbers = load i64, ptr %tp2
  br label %number
number:
  %j = phi i64 [ 0, %add ], [ %j1, %number ]
  %x = getelementptr FLOAT, ptr %from1, i64 %j
  %y = getelementptr double, ptr %to1, i64 %j
  %xv = load FLOAT, ptr %x
  EXTEND
  %yv = load double, ptr %y
  %zv = fadd double %yv, %xd
  store double %zv, ptr %y
  %j1 = add i64 %j, 1
  %morej = icmp ult i64 %j1, %numbers
  br i1 %morej, label %number, label %summed
summed:
  %t1 = add i64 %t, 1
  br label %sums
added:
  %next = add i64 %at, %n
  %b1 = add i64 %b, 1
  %again = icmp ult i64 %next, %stop
  br i1 %again, label %block, label %end
end:
  ret void
}

declare i64 @llvm.umin.i64(i64, i64)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
attributes #0 = { nounwind }
attributes #1 = { nounwind willreturn memory(none) }
"""


def around(of: str, width: int) -> str:
    """`rows` and `epoch` for numbers of that type and size."""
    if of == "double":
        step, extend = "store double %sf, ptr %step", "%xd = fadd double %xv, 0.0"
    else:
        step = "%s1 = fptrunc double %sf to float\n  store float %s1, ptr %step"
        extend = "%xd = fpext float %xv to double"
    text = AROUND.replace("STORE_STEP", step).replace("EXTEND", extend)
    return text.replace("FLOAT", of).replace("ALIGN", str(width))
