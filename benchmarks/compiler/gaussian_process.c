/* The likelihood of a Gaussian process and its gradient, as loops written by hand: see programs.py. */

#include <math.h>

/* p: logarithms of length, scale and noise; z: the value, and its three derivatives; work: 3 n * n + 2 n numbers */
void gaussian_process(const double *restrict p, double *restrict z, const double *restrict x, const double *restrict y,
                      double *restrict work, long n)
{
    const double length = exp(p[0]), scale = exp(p[1]), noise = exp(p[2]);
    double *k = work, *l = k + n * n, *dl = l + n * n, *s = dl + n * n, *ds = s + n;
    double value = 0.0, dlength = 0.0, dscale = 0.0, dnoise = 0.0;

    for (long i = 0; i < n; i++)
        for (long j = 0; j <= i; j++)
            k[i * n + j] = scale * exp(-(x[i] - x[j]) * (x[i] - x[j]) / (2.0 * length * length));
    for (long i = 0; i < n; i++)
        for (long j = 0; j <= i; j++) {
            double total = k[i * n + j] + (i == j ? noise : 0.0);
            for (long m = 0; m < j; m++)
                total -= l[i * n + m] * l[j * n + m];
            l[i * n + j] = i == j ? sqrt(total) : total / l[j * n + j];
        }
    for (long i = 0; i < n; i++) {
        double total = y[i];
        for (long m = 0; m < i; m++)
            total -= l[i * n + m] * s[m];
        s[i] = total / l[i * n + i];
        value += s[i] * s[i] / 2.0 + log(l[i * n + i]);
    }

    for (long i = 0; i < n; i++) {
        for (long j = 0; j < i; j++)
            dl[i * n + j] = 0.0;
        dl[i * n + i] = 1.0 / l[i * n + i];
        ds[i] = s[i];
    }
    for (long i = n - 1; i >= 0; i--) {
        const double g = ds[i] / l[i * n + i];
        dl[i * n + i] -= g * s[i];
        for (long m = 0; m < i; m++) {
            dl[i * n + m] -= g * s[m];
            ds[m] -= g * l[i * n + m];
        }
    }
    for (long i = n - 1; i >= 0; i--)
        for (long j = i; j >= 0; j--) {
            double g;
            if (i == j) {
                g = dl[i * n + i] / (2.0 * l[i * n + i]);
                for (long m = 0; m < i; m++)
                    dl[i * n + m] -= 2.0 * g * l[i * n + m];
                dnoise += g * noise;
            } else {
                g = dl[i * n + j] / l[j * n + j];
                dl[j * n + j] -= g * l[i * n + j];
                for (long m = 0; m < j; m++) {
                    dl[i * n + m] -= g * l[j * n + m];
                    dl[j * n + m] -= g * l[i * n + m];
                }
            }
            dscale += g * k[i * n + j];
            dlength += g * k[i * n + j] * (x[i] - x[j]) * (x[i] - x[j]) / (length * length);
        }
    z[0] = value, z[1] = dlength, z[2] = dscale, z[3] = dnoise;
}
